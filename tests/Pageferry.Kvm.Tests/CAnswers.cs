using System.Diagnostics;
using System.Globalization;
using System.Text;

namespace Pageferry.Kvm.Tests;

/// <summary>Asks the C compiler what expressions are worth with this machine's kernel headers.</summary>
internal static class CAnswers
{
    /// <summary>Compiles one program that prints every expression, and runs it.</summary>
    /// <param name="expressions">C expressions of an integer type.</param>
    /// <param name="newer">Macros that the headers may lack, with their values from the kernel's uapi.</param>
    /// <returns>Each expression's value as 64 bits.</returns>
    public static Dictionary<string, ulong> Of(IEnumerable<string> expressions, IReadOnlyDictionary<string, string> newer)
    {
        var program = new StringBuilder("""
            #include <linux/kvm.h>
            #include <signal.h>
            #include <stddef.h>
            #include <stdio.h>

            """);
        foreach ((string name, string value) in newer)
        {
            _ = program.AppendLine(CultureInfo.InvariantCulture, $"#ifndef {name}\n#define {name} {value}\n#endif");
        }

        string[] asked = [.. expressions.Distinct(StringComparer.Ordinal)];
        _ = program.AppendLine("int main(void)\n{");
        foreach (string expression in asked)
        {
            _ = program.AppendLine(CultureInfo.InvariantCulture, $"    printf(\"%s=%llu\\n\", \"{expression}\", (unsigned long long)({expression}));");
        }

        _ = program.AppendLine("    return 0;\n}");

        DirectoryInfo directory = Directory.CreateTempSubdirectory("pageferry-abi-");
        try
        {
            string source = Path.Combine(directory.FullName, "abi.c");
            string executable = Path.Combine(directory.FullName, "abi");
            File.WriteAllText(source, program.ToString());
            _ = Run("gcc", "-Wall", "-Werror", "-o", executable, source);
            return Run(executable).Split('\n', StringSplitOptions.RemoveEmptyEntries)
                .Select(line => line.LastIndexOf('=') is var at && at > 0 ? (Name: line[..at], Value: line[(at + 1)..]) : throw new InvalidDataException(line))
                .ToDictionary(line => line.Name, line => ulong.Parse(line.Value, CultureInfo.InvariantCulture), StringComparer.Ordinal);
        }
        finally
        {
            directory.Delete(recursive: true);
        }
    }

    private static string Run(string program, params string[] arguments)
    {
        var start = new ProcessStartInfo(program, arguments) { UseShellExecute = false, RedirectStandardOutput = true, RedirectStandardError = true };
        using Process process = Process.Start(start)!;
        Task<string> errors = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        Assert.True(process.ExitCode == 0, $"{program} ended with {process.ExitCode}: {errors.Result}");
        return output;
    }
}
