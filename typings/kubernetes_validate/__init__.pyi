from typing import Any

class ValidationError(Exception):
    version: str
    message: str

def validate(data: dict[str, Any], desired_version: str, strict: bool = ...) -> str: ...
