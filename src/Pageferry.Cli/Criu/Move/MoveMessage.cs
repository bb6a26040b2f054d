namespace Pageferry.Cli;

/// <summary>What a message between <c>criu move</c> and <c>criu receive</c> says: docs/criu.md.</summary>
internal enum MoveMessage : ushort
{
    /// <summary>The first of a connection, from the source: a <see cref="MoveHello"/>.</summary>
    Hello = 1,

    /// <summary>Its answer: a <see cref="MoveWelcome"/>.</summary>
    Welcome,

    /// <summary>What is to be moved: a <see cref="MoveOffer"/>.</summary>
    Offer,

    /// <summary>It can be restored here, as far as that can be known before.</summary>
    Ready,

    /// <summary>The next image: a <see cref="MoveImage"/>, then its bytes.</summary>
    Image,

    /// <summary>Bytes of the last image.</summary>
    Data,

    /// <summary>There are no more images.</summary>
    EndOfImages,

    /// <summary>The processes stand ready at the destination, and wait for <see cref="Start"/>.</summary>
    Restored,

    /// <summary>They are the destination's now: the point of no return.</summary>
    Start,

    /// <summary>They run at the destination: a <see cref="MoveArrived"/>.</summary>
    Running,

    /// <summary>All their memory is there.</summary>
    Complete,

    /// <summary>The source has let go of what it kept.</summary>
    Released,

    /// <summary>The sender parts, and says why.</summary>
    Failed,

    /// <summary>The sender is there.</summary>
    Alive,
}
