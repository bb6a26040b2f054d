namespace Pageferry.Vmm;

/// <summary>The privilege level that a guest starts at.</summary>
public enum GuestPrivilege
{
    /// <summary>CPL 3 with IOPL 3: ports work, privileged instructions don't. Runs natively under every kind of KVM.</summary>
    User,

    /// <summary>CPL 0. A software KVM emulates it instruction by instruction.</summary>
    Kernel,
}
