namespace Pageferry.Migration;

/// <summary>What one of a session's connections is for.</summary>
internal enum ConnectionRole : byte
{
    /// <summary>Layout, machine state, switchover and completion.</summary>
    Control = 1,

    /// <summary>Requests, and the pages requested.</summary>
    Demand = 2,

    /// <summary>The pages nobody asked for.</summary>
    Background = 3,
}
