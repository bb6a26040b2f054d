using Pageferry.Cli;

return await CommandTree.RunAsync(args);
