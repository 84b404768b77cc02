"""Groups of subcommands, one file a group; like `cli`, they parse, call and print."""
