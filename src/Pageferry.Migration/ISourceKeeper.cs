namespace Pageferry.Migration;

/// <summary>
/// Keeps what a source serves a guest from, so that it outlives the source's process. Each step has been taken when its method returns, and is acted on only then; one that
/// throws may have been taken.
/// </summary>
public interface ISourceKeeper
{
    /// <summary>Keeps it for as long as this process lives: the guest stands still here, and was not handed over.</summary>
    /// <param name="record">What another process has to know beside the guest's memory, which the keeper knows.</param>
    /// <exception cref="IOException">It is not kept.</exception>
    void Offer(SourceRecord record);

    /// <summary>Keeps it whatever becomes of this process: the guest is about to be the destination's.</summary>
    /// <exception cref="IOException">It is not known to be kept so.</exception>
    void LetGo();

    /// <summary>Has nobody serve it any more: the guest is about to go on here. It may be asked for after any failure, again and again.</summary>
    /// <exception cref="IOException">It is not known that nobody can.</exception>
    void Burn();

    /// <summary>Keeps it no longer: the destination has every page.</summary>
    /// <exception cref="IOException">It may be kept on.</exception>
    void Drop();
}
