"""A root shell on a node that stays open: each `docker exec` is a tenth of a second of CPU, and tests ask often."""

import subprocess
import uuid


class NodeShell:
    """Opened when it is first asked, and again when its node was restarted."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._process: subprocess.Popen[str] | None = None

    def ask(self, script: str) -> str:
        """What a script prints. Its errors and its exit status are nobody's."""
        for _ in range(2):
            if (printed := self._ask(script)) is not None:
                return printed
            self.close()
        raise AssertionError(f"no shell on {self._node}")

    def close(self) -> None:
        """Leave the node."""
        process, self._process = self._process, None
        if process:
            process.communicate()  # the end of its input ends it, if the node's restart has not

    def _ask(self, script: str) -> str | None:
        """None: the shell is gone."""
        if self._process is None:
            command = ["docker", "exec", "-i", self._node, "sh"]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        assert self._process.stdin
        assert self._process.stdout
        end = f"-- {uuid.uuid4()}\n"
        try:
            self._process.stdin.write(f"{script}\nprintf '\\n%s' '{end}'\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return None
        lines = []
        for line in self._process.stdout:
            if line == end:
                return "".join(lines)[:-1]
            lines.append(line)
        return None
