"""Rankings and images made elsewhere: folders and tables of pairs, metadata of generators."""
