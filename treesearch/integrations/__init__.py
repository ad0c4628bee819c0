"""Other people's models: `treesearch.integrations.torch` for torch and Hugging Face."""
