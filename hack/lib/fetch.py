"""Download one file and verify it against the SHA-256 that its publisher puts beside it.

Exit status: 0 the file is there and right; 3 the site is not in reach or has no such file (so that the
caller can take another way); 1 it came, and is not what its checksum says.
"""

import argparse
import hashlib
import sys
import urllib.error
import urllib.request
from pathlib import Path

CONNECT_SECONDS = 3


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=CONNECT_SECONDS) as answer:
        return bytes(answer.read())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("checksum_url")
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    try:
        wanted = get(args.checksum_url).split()[0].decode()
        content = get(args.url)
    except (urllib.error.URLError, OSError, IndexError) as error:
        print(f"{args.url}: {error}", file=sys.stderr)
        return 3
    found = hashlib.sha256(content).hexdigest()
    if found != wanted:
        print(f"{args.url}: SHA-256 is {found}, its publisher says {wanted}", file=sys.stderr)
        return 1
    args.output.write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
