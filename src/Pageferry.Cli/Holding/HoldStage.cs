namespace Pageferry.Cli;

/// <summary>How far something that a holder keeps has been let go of. It only goes forward, and only in <see cref="LetGo"/> does it outlive who put or took it.</summary>
internal enum HoldStage : byte
{
    /// <summary>Who put it still answers for it: it goes with the connection, and nobody else gets it.</summary>
    Offered,

    /// <summary>It is kept until it is dropped. When the connection that has it ends, another one may take it.</summary>
    LetGo,

    /// <summary>Nobody gets it any more: it goes with the connection. Who has it may say so without the holder (<see cref="HeldFile.Burn"/>).</summary>
    Burnt,
}
