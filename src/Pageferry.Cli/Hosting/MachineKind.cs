using System.Globalization;
using System.Runtime.InteropServices;

namespace Pageferry.Cli;

/// <summary>What a machine state is for, as the two sides of a migration tell each other: <c>kvm/x64/2</c> is KVM on x86-64 with two vCPUs.</summary>
/// <param name="Host"><see cref="HostWord.Kvm"/> or <see cref="HostWord.Threads"/>.</param>
/// <param name="Vcpus">How many virtual CPUs.</param>
internal readonly record struct MachineKind(string Host, int Vcpus)
{
    private static string Architecture => RuntimeInformation.ProcessArchitecture.ToString().ToLowerInvariant();

    /// <inheritdoc/>
    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{Host}/{Architecture}/{Vcpus}");

    /// <summary>Reads what the other side wrote.</summary>
    /// <param name="text">The kind.</param>
    /// <returns>The kind.</returns>
    /// <exception cref="CommandException">This process can't run such a machine.</exception>
    internal static MachineKind Parse(string text) =>
        text.Split('/') is [HostWord.Kvm or HostWord.Threads, var architecture, var count]
        && string.Equals(architecture, Architecture, StringComparison.Ordinal)
        && int.TryParse(count, NumberStyles.None, CultureInfo.InvariantCulture, out int vcpus)
            ? new MachineKind(text[..text.IndexOf('/', StringComparison.Ordinal)], vcpus)
            : throw new CommandException($"A guest of kind '{text}' can't run here: known are {HostWord.Kvm}/{Architecture}/N and {HostWord.Threads}/{Architecture}/N, N being the number of vCPUs.");
}
