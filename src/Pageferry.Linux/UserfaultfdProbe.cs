namespace Pageferry.Linux;

/// <summary>What <see cref="Userfaultfd.Probe"/> found.</summary>
public sealed record UserfaultfdProbe
{
    /// <summary>The features that this process may ask for; bits unknown here are kept. None after a <see cref="Failure"/>.</summary>
    public UserfaultfdFeatures Features { get; init; }

    /// <summary>Whether it comes from <c>/dev/userfaultfd</c>; else from the system call.</summary>
    public bool IsByDevice { get; init; }

    /// <summary>Why this process can't have a userfaultfd that sees the kernel's faults too, and what grants it; null when it can.</summary>
    public LinuxException? Failure { get; init; }
}
