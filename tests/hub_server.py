"""A Hugging Face Hub on loopback for the real client: in memory, on the standard library."""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class HubServer:
    """Repositories, uploaded blobs, a log of "METHOD path", and paths that answer 500."""

    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    broken: str | None = None  # a regular expression; matching paths answer 500

    def __post_init__(self) -> None:
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def commit_id(self, repo: str) -> str:
        """Changes with the content, as the client's cache expects."""
        digest = hashlib.sha1(usedforsecurity=False)
        for path, body in sorted(self.repos[repo].items()):
            digest.update(path.encode() + b"\0" + body)
        return digest.hexdigest()

    def clear(self) -> None:
        self.repos.clear()
        self.blobs.clear()
        self.log.clear()
        self.broken = None


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"
    # else the body waits 40 ms for the acknowledgement of the headers
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        headers.setdefault("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: object, status: int = 200, **headers: str) -> None:
        body = json.dumps(value).encode()
        self._send(status, body, Content_Type="application/json", **headers)

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._read_chunks()
        else:
            body = self.rfile.read(length)
        path = self.path.split("?")[0]
        self.hub.log.append(f"{self.command} {path}")
        if self.hub.broken and re.search(self.hub.broken, path):
            self._json({"error": "broken on purpose"}, status=500)
            return
        for method, pattern, answer in ROUTES:
            match = re.fullmatch(pattern, path)
            if self.command in method.split() and match:
                answer(self, body, **match.groupdict())
                return
        self._json({"error": f"no route for {self.command} {path}"}, status=404)

    def _read_chunks(self) -> bytes:
        out = b""
        while size := int(self.rfile.readline().strip() or b"0", 16):
            out += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return out

    do_GET = do_HEAD = do_POST = do_PUT = _handle

    def repo_info(self, _: bytes, repo: str) -> None:
        if repo not in self.hub.repos:
            self._json({"error": "not found"}, 404, X_Error_Code="RepoNotFound")
            return
        siblings = [{"rfilename": name} for name in self.hub.repos[repo]]
        self._json(
            {"id": repo, "modelId": repo, "sha": self.hub.commit_id(repo), "siblings": siblings}
        )

    def create(self, body: bytes) -> None:
        request = json.loads(body)
        owner = request.get("organization")
        repo = f"{owner}/{request['name']}" if owner else request["name"]
        self.hub.repos.setdefault(repo, {})
        self._json({"url": f"{self.hub.url}/{repo}"})

    def preupload(self, body: bytes, repo: str) -> None:
        files = [
            {
                "path": f["path"],
                "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for f in json.loads(body)["files"]
        ]
        self._json({"files": files})

    def lfs_batch(self, body: bytes, repo: str) -> None:
        objects = [
            {
                **{k: o[k] for k in ("oid", "size")},
                "actions": {"upload": {"href": f"{self.hub.url}/lfs/{o['oid']}"}},
            }
            for o in json.loads(body)["objects"]
        ]
        self._json({"objects": objects})

    def lfs_put(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            self._json({"error": "sha256 mismatch"}, status=400)
            return
        self.hub.blobs[oid] = body
        self._send(200)

    def commit(self, body: bytes, repo: str) -> None:
        for line in body.decode().splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                self.hub.repos[repo][value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                self.hub.repos[repo][value["path"]] = self.hub.blobs[value["oid"]]
            elif item["key"] == "deletedFile":
                del self.hub.repos[repo][value["path"]]
        commit = self.hub.commit_id(repo)
        url = f"{self.hub.url}/{repo}/commit/{commit}"
        self._json({"commitOid": commit, "commitUrl": url, "success": True})

    def resolve(self, _: bytes, repo: str, path: str) -> None:
        if repo not in self.hub.repos:
            self._json({}, 404, X_Error_Code="RepoNotFound")
        elif path not in self.hub.repos[repo]:
            self._json({}, 404, X_Error_Code="EntryNotFound")
        else:
            body = self.hub.repos[repo][path]
            etag = f'"{hashlib.sha256(body).hexdigest()}"'
            self._send(200, body, X_Repo_Commit=self.hub.commit_id(repo), ETag=etag)

    def valid_yaml(self, _: bytes) -> None:
        self._json({})


REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
ROUTES = (
    ("GET", rf"/api/models/{REPO}", _Handler.repo_info),
    ("POST", r"/api/repos/create", _Handler.create),
    ("POST", rf"/api/models/{REPO}/preupload/main", _Handler.preupload),
    ("POST", rf"/{REPO}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]+)", _Handler.lfs_put),
    ("POST", rf"/api/models/{REPO}/commit/main", _Handler.commit),
    ("GET HEAD", rf"/{REPO}/resolve/\w+/(?P<path>.+)", _Handler.resolve),
    ("POST", r"/api/validate-yaml", _Handler.valid_yaml),
)
