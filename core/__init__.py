"""The vocabulary and the rules of the platform: pure, and free of any framework but pydantic."""
