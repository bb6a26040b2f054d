namespace Pageferry.Cli;

/// <summary>How far a move is at the destination.</summary>
internal static class MoveStage
{
    /// <summary>Nothing runs yet.</summary>
    internal const string Preparing = "preparing";

    /// <summary>The processes stand ready and wait to be told to start.</summary>
    internal const string Restored = "restored";

    /// <summary>They were told to start.</summary>
    internal const string Started = "started";

    /// <summary>They will never run here.</summary>
    internal const string GivenUp = "given_up";
}
