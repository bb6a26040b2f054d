using Pageferry.Testing;

[assembly: AssemblyFixture(typeof(HugePages))]
