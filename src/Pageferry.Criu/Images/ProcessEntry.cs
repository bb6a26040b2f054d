namespace Pageferry.Criu;

/// <summary>A process, or what is left of one, in the tree that was dumped.</summary>
/// <param name="Pid">Its number, in the pid namespace that the tree's first process lives in.</param>
/// <param name="ParentPid">Its parent's; 0 of the first.</param>
public readonly record struct ProcessEntry(int Pid, int ParentPid);
