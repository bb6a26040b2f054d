namespace Pageferry.Linux.Tests;

public sealed class CurrentProcessTests
{
    [Fact]
    public void What_is_written_to_a_discarded_descriptor_goes_nowhere()
    {
        string path = Path.GetTempFileName();
        try
        {
            using FileStream file = new(path, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite, bufferSize: 0);
            file.WriteByte(1);
            CurrentProcess.Discard((int)file.SafeFileHandle.DangerousGetHandle());
            file.WriteByte(2);
            Assert.Equal([1], File.ReadAllBytes(path));
        }
        finally
        {
            File.Delete(path);
        }
    }
}
