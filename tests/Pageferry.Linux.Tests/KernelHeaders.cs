using System.Diagnostics;
using System.Globalization;
using System.Text;

namespace Pageferry.Linux.Tests;

/// <summary>Asks the C compiler what this machine's headers say.</summary>
internal static class KernelHeaders
{
    private const string Prologue = """
        #define _GNU_SOURCE
        #include <errno.h>
        #include <fcntl.h>
        #include <poll.h>
        #include <signal.h>
        #include <stddef.h>
        #include <stdio.h>
        #include <time.h>
        #include <unistd.h>
        #include <sys/eventfd.h>
        #include <sys/file.h>
        #include <sys/mman.h>
        #include <sys/socket.h>
        #include <sys/syscall.h>
        #include <sys/uio.h>
        #include <sys/un.h>
        #include <sys/wait.h>
        #include <linux/fs.h>
        #include <linux/hw_breakpoint.h>
        #include <linux/io_uring.h>
        #include <linux/memfd.h>
        #include <linux/mman.h>
        #include <linux/perf_event.h>
        #include <linux/sched.h>
        #include <linux/sched/types.h>
        #include <linux/userfaultfd.h>
        /* Enumerators there, which #ifdef does not see. */
        #define PERF_TYPE_BREAKPOINT PERF_TYPE_BREAKPOINT
        #define HW_BREAKPOINT_W HW_BREAKPOINT_W
        #define IORING_REGISTER_BUFFERS IORING_REGISTER_BUFFERS
        #define IORING_UNREGISTER_BUFFERS IORING_UNREGISTER_BUFFERS
        /* Names of ours do not begin with underscores. */
        #define WALL __WALL

        int main(void)
        {

        """;

    /// <summary>Compiles and runs one program that prints every expression.</summary>
    /// <param name="questions">A name for each answer, the macro without which the headers don't know it (null for none), and the C expression.</param>
    /// <returns>The answers; what the headers don't know is missing.</returns>
    internal static Dictionary<string, ulong> Ask(IEnumerable<(string Name, string? Macro, string Expression)> questions)
    {
        var source = new StringBuilder(Prologue);
        foreach ((string name, string? macro, string expression) in questions)
        {
            string print = $"    printf(\"%s=%llu\\n\", \"{name}\", (unsigned long long)({expression}));\n";
            source.Append(macro is null ? print : $"#ifdef {macro}\n{print}#endif\n");
        }

        source.Append("    return 0;\n}\n");
        DirectoryInfo directory = Directory.CreateTempSubdirectory("pageferry-abi-");
        try
        {
            string file = Path.Combine(directory.FullName, "abi.c");
            string program = Path.Combine(directory.FullName, "abi");
            File.WriteAllText(file, source.ToString());
            Run("gcc", "-std=gnu17", "-Wall", "-Wno-pointer-to-int-cast", "-Werror", "-o", program, file);
            return Run(program)
                .Split('\n', StringSplitOptions.RemoveEmptyEntries)
                .Select(line => line.Split('='))
                .ToDictionary(parts => parts[0], parts => ulong.Parse(parts[1], CultureInfo.InvariantCulture), StringComparer.Ordinal);
        }
        finally
        {
            directory.Delete(recursive: true);
        }
    }

    private static string Run(string program, params string[] arguments)
    {
        using var process = Process.Start(new ProcessStartInfo(program, arguments)
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            UseShellExecute = false,
        })!;
        Task<string> errors = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        Assert.True(process.ExitCode == 0, $"{program} failed: {errors.GetAwaiter().GetResult()}");
        return output;
    }
}
