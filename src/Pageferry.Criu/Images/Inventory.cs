namespace Pageferry.Criu;

/// <summary>Reads what the images are as a whole: <c>inventory.img</c>.</summary>
internal static class Inventory
{
    /// <summary>Images without a common magic number, and with one. They have been of the second version since CRIU 2.0.</summary>
    private const uint OldestVersion = 1;
    private const uint NewestVersion = 2;

    /// <exception cref="ImageException">The image makes no sense, or the images are of an unknown version.</exception>
    internal static void Check(ImageFile image)
    {
        uint version = 0;
        if (image.Next() is not { } message)
        {
            throw image.Failure("is empty.");
        }

        image.ReadFields(message, (stream, field) =>
        {
            const int VersionField = 1;
            if (field == VersionField)
            {
                version = stream.ReadUInt32();
            }

            return field == VersionField;
        });
        if (version is < OldestVersion or > NewestVersion)
        {
            throw image.Failure($"says that the images are of version {version}: {OldestVersion} to {NewestVersion} are known.");
        }
    }
}
