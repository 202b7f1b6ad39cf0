"""The contract: JSON Schemas, AsyncAPI, and the code that reads and writes them."""
