"""Any OpenAI-compatible model, paid for once; and the rehearsal teacher, which measures pixels."""
