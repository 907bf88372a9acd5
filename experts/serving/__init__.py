"""The server side of the language-model expert: the OpenAI protocol, local models, and the fault server."""
