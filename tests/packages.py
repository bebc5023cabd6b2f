"""What a wheel needs."""

import email
import io
import zipfile


def needed_by_the_wheel(content: bytes) -> list[str]:
    """Requirements that the metadata of a wheel names."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name)).get_all("Requires-Dist", [])
