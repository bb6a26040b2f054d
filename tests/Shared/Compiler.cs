using System.Diagnostics;
using System.Globalization;
using System.Reflection;
using System.Text;

namespace Pageferry.Testing;

/// <summary>Asks the C compiler what the kernel's headers say.</summary>
internal static class Compiler
{
    /// <summary>Evaluates C expressions.</summary>
    /// <param name="headers">The headers to include, in order.</param>
    /// <param name="expressions">The expressions; one that is a macro's name may be unknown to the headers.</param>
    /// <returns>The values as 64 bits; without those that the headers don't know.</returns>
    public static Dictionary<string, ulong> Evaluate(IEnumerable<string> headers, IEnumerable<string> expressions)
    {
        string folder = Directory.CreateTempSubdirectory("pageferry-abi-").FullName;
        try
        {
            string source = Path.Combine(folder, "abi.c");
            string program = Path.Combine(folder, "abi");
            File.WriteAllText(source, Program(headers, expressions));
            _ = Run("gcc", "-w", "-o", program, source);
            return Run(program)
                .Split('\n', StringSplitOptions.RemoveEmptyEntries)
                .Select(line => line.Split('\t'))
                .ToDictionary(parts => parts[0], parts => ulong.Parse(parts[1], CultureInfo.InvariantCulture), StringComparer.Ordinal);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    /// <summary>The numeric constants of an interop class by their C names.</summary>
    public static IEnumerable<(string Name, ulong Value)> Constants(Type interop) =>
        from field in interop.GetFields(BindingFlags.Static | BindingFlags.NonPublic | BindingFlags.Public)
        where field.IsLiteral && field.FieldType != typeof(string)
        select (field.Name, Bits(field.GetRawConstantValue()!));

    /// <summary>The structures of an interop class, which have the names that they have in C.</summary>
    public static IEnumerable<Type> Structures(Type interop) =>
        interop.GetNestedTypes(BindingFlags.NonPublic).Where(type => type is { IsValueType: true, IsEnum: false });

    /// <summary>The values of an enum that holds the kernel's.</summary>
    public static IEnumerable<(string Name, ulong Value)> Values<T>()
        where T : struct, Enum => Enum.GetValues<T>().Distinct().Select(value => (value.ToString(), Bits(Convert.ChangeType(value, value.GetTypeCode(), CultureInfo.InvariantCulture))));

    private static ulong Bits(object value) => value switch
    {
        nuint number => number,
        nint number => (ulong)number,
        ulong number => number,
        uint number => number,
        int number => (ulong)(uint)number,
        _ => Convert.ToUInt64(value, CultureInfo.InvariantCulture),
    };

    private static string Program(IEnumerable<string> headers, IEnumerable<string> expressions)
    {
        var text = new StringBuilder("#define _GNU_SOURCE\n");
        foreach (string header in headers)
        {
            _ = text.Append(CultureInfo.InvariantCulture, $"#include <{header}>\n");
        }

        _ = text.Append("#include <stddef.h>\n#include <stdio.h>\nint main(void)\n{\n");
        foreach (string expression in expressions)
        {
            bool isName = expression.All(letter => char.IsAsciiLetterOrDigit(letter) || letter == '_');
            string print = $"    printf(\"%s\\t%llu\\n\", \"{expression}\", sizeof({expression}) == 4 ? (unsigned long long)(unsigned int)({expression}) : (unsigned long long)({expression}));\n";
            _ = text.Append(isName ? $"#ifdef {expression}\n{print}#endif\n" : print);
        }

        return text.Append("    return 0;\n}\n").ToString();
    }

    private static string Run(string program, params string[] arguments)
    {
        using Process process = Process.Start(new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true, UseShellExecute = false })!;
        Task<string> errors = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return process.ExitCode == 0 ? output : throw new InvalidOperationException($"{program} ended with {process.ExitCode}: {errors.Result}");
    }
}
