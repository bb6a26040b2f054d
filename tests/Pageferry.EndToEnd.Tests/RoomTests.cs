using System.Reflection;

namespace Pageferry.EndToEnd.Tests;

/// <summary>Who may use whom among the rooms, and nobody else: docs/architecture.md.</summary>
public class RoomTests
{
    public static TheoryData<string, string[]> Rooms => new()
    {
        { "Pageferry.Linux", [] },
        { "Pageferry.Kvm", ["Pageferry.Linux"] },
        { "Pageferry.Memory", ["Pageferry.Linux"] },
        { "Pageferry.Vmm", ["Pageferry.Linux", "Pageferry.Memory", "Pageferry.Kvm"] },
        { "Pageferry.Migration", ["Pageferry.Memory"] },
        { "Pageferry.Snapshots", ["Pageferry.Memory"] },
        { "Pageferry.Criu", ["Pageferry.Linux", "Pageferry.Memory"] },
        { "Pageferry.Conformance", ["Pageferry.Linux", "Pageferry.Memory", "Pageferry.Vmm"] },
    };

    [Theory]
    [MemberData(nameof(Rooms))]
    public void A_room_uses_the_rooms_it_may_use_and_no_other(string room, string[] mayUse)
    {
        IEnumerable<string> used = Assembly.Load(room).GetReferencedAssemblies()
            .Select(reference => reference.Name!)
            .Where(name => name.StartsWith("Pageferry.", StringComparison.Ordinal));
        Assert.Empty(used.Except(mayUse, StringComparer.Ordinal));
    }

    [Fact]
    public void Every_room_of_the_product_is_held()
    {
        string[] libraries = [.. Directory.GetFiles(AppContext.BaseDirectory, "Pageferry.*.dll")
            .Select(file => Path.GetFileNameWithoutExtension(file)!)
            .Where(name => !name.EndsWith(".Tests", StringComparison.Ordinal))];
        Assert.Equal(Rooms.Select(row => row.Data.Item1).Order(StringComparer.Ordinal), libraries.Order(StringComparer.Ordinal), StringComparer.Ordinal);
    }
}
