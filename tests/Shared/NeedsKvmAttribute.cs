using System.Reflection;
using Xunit.v3;

namespace Pageferry.Testing;

/// <summary>Skips what needs KVM where there is none.</summary>
[AttributeUsage(AttributeTargets.Class | AttributeTargets.Method)]
internal sealed class NeedsKvmAttribute : BeforeAfterTestAttribute
{
    /// <inheritdoc/>
    public override void Before(MethodInfo methodUnderTest, IXunitTest test) => KvmDevice.SkipIfMissing();
}
