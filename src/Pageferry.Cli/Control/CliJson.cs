using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace Pageferry.Cli;

/// <summary>The JSON that the command reads and writes; the code is generated, so that it works in the NativeAOT binary.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower, DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull)]
[JsonSerializable(typeof(ControlRequest))]
[JsonSerializable(typeof(ControlAnswer))]
[JsonSerializable(typeof(VmStatus))]
[JsonSerializable(typeof(ArmingReport))]
[JsonSerializable(typeof(VmEvent))]
[JsonSerializable(typeof(MigrationReport))]
[JsonSerializable(typeof(RecordedMigration))]
[JsonSerializable(typeof(DemoReport))]
[JsonSerializable(typeof(DoctorReport))]
[JsonSerializable(typeof(ConformanceReport))]
[JsonSerializable(typeof(PagingReport))]
[JsonSerializable(typeof(PagingComparison))]
[JsonSerializable(typeof(TlsInitReport))]
[JsonSerializable(typeof(TortureReport))]
[JsonSerializable(typeof(LazyReport))]
[JsonSerializable(typeof(ExportReport))]
[JsonSerializable(typeof(MergeReport))]
[JsonSerializable(typeof(FailureReport))]
[JsonSerializable(typeof(EngineMessage))]
[JsonSerializable(typeof(HeldRestore))]
[JsonSerializable(typeof(HeldSource))]
[JsonSerializable(typeof(MoveHello))]
[JsonSerializable(typeof(MoveWelcome))]
[JsonSerializable(typeof(MoveOffer))]
[JsonSerializable(typeof(MoveImage))]
[JsonSerializable(typeof(MoveArrived))]
[JsonSerializable(typeof(MoveStatus))]
internal sealed partial class CliJson : JsonSerializerContext
{
    private static CliJson? s_indented;

    /// <summary>The same, written over several lines for a reader, and quotes as they are: nobody puts it into HTML.</summary>
    internal static CliJson Indented => s_indented ??= new CliJson(new JsonSerializerOptions(Default.Options) { WriteIndented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping });
}
