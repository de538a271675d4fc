"""A stand-in for a Kubernetes cluster: the part of its API that Snakemake's executor calls, over HTTP on this machine.

A pod is a process in a fresh folder with the environment of the "image" and its own variables, and nothing else. What a
cluster decides (where a pod runs, how much it may use) is not imitated; what its API refuses is.
"""

import base64
import json
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, Self

from flask import Flask, request
from werkzeug.serving import make_server

CORE = "/api/v1/namespaces/default"
BATCH = "/apis/batch/v1/namespaces/default"


@dataclass
class Pod:
    """The pod of a job, of one container, and the process that stands for it."""

    job: dict[str, Any]
    process: subprocess.Popen[bytes]

    def status(self) -> dict[str, int]:
        """The job's."""
        code = self.process.poll()
        return {"active": int(code is None), "succeeded": int(code == 0), "failed": int(bool(code))}

    def description(self) -> dict[str, Any]:
        code = self.process.poll()
        # A process that a signal ended exits as a shell says it.
        state = {"running": {}} if code is None else {"terminated": {"exitCode": 128 - code if code < 0 else code}}
        status = {"name": container_of(self.job)["name"], "image": "", "imageID": "", "ready": code is None}
        status |= {"restartCount": 0, "state": state}
        return {"metadata": {"name": name_of(self.job)}, "status": {"containerStatuses": [status]}}

    def kill(self) -> None:
        """End all its processes, as a node does that has no memory left."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def name_of(job: dict[str, Any]) -> str:
    return job["metadata"]["name"]


def container_of(job: dict[str, Any]) -> dict[str, Any]:
    (container,) = job["spec"]["template"]["spec"]["containers"]
    return container


class Cluster:
    """Runs the jobs that are posted to it, in folders below `folder`.

    `images` holds the environment of each image, and `paths` says which folder stands for a path of the images.
    """

    def __init__(self, folder: Path, images: dict[str, dict[str, str]], paths: dict[str, Path]) -> None:
        self.folder, self.images, self.paths = folder, images, paths
        self.secrets: dict[str, dict[str, str]] = {}
        self.jobs: list[dict[str, Any]] = []
        """All that were ever posted."""
        self.pods: dict[str, Pod] = {}
        """Those that are there, each named like its job."""
        self.server = make_server("127.0.0.1", 0, self.api(), threaded=True)
        self.kubeconfig = folder / "kubeconfig.json"

    def __enter__(self) -> Self:
        self.folder.mkdir()
        settings = {
            "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{self.server.port}"}}],
            "users": [{"name": "me", "user": {}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
            "current-context": "here",
        }
        self.kubeconfig.write_text(json.dumps(settings))
        Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        for pod in self.pods.values():
            pod.kill()

    def start(self, job: dict[str, Any]) -> None:
        """Start the pod of a job."""
        container = container_of(job)
        environment = dict(self.images[container["image"]])
        for variable in container["env"]:
            key = variable["valueFrom"]["secretKeyRef"]
            environment[variable["name"]] = base64.b64decode(self.secrets[key["name"]][key["key"]]).decode()
        command = container["command"] + container["args"]
        for path, stand_in in self.paths.items():
            command = [word.replace(path, str(stand_in)) for word in command]
        folder = self.folder / name_of(job)
        folder.mkdir()
        with folder.with_suffix(".log").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        self.jobs.append(job)
        self.pods[name_of(job)] = Pod(job, process)

    def api(self) -> Flask:
        app = Flask(__name__)

        @app.post(f"{CORE}/secrets")
        def create_secret() -> Any:
            secret = request.get_json(force=True)
            self.secrets[secret["metadata"]["name"]] = secret["data"]
            return secret

        @app.delete(f"{CORE}/secrets/<name>")
        def delete_secret(name: str) -> Any:
            del self.secrets[name]
            return {"status": "Success"}

        @app.post(f"{BATCH}/jobs")
        def create_job() -> Any:
            job = request.get_json(force=True)
            self.start(job)
            return job

        @app.get(f"{BATCH}/jobs/<name>/status")
        def read_job(name: str) -> Any:
            return {"metadata": {"name": name}, "status": self.pods[name].status()}

        @app.delete(f"{BATCH}/jobs/<name>")
        def delete_job(name: str) -> Any:
            self.pods.pop(name).kill()
            return {"status": "Success"}

        @app.get(f"{CORE}/pods")
        def list_pods() -> Any:
            name = request.args["labelSelector"].removeprefix("job-name=")
            return {"items": [pod.description() for pod in (self.pods.get(name),) if pod]}

        @app.delete(f"{CORE}/pods/<name>")
        def delete_pod(name: str) -> Any:
            self.pods[name].kill()
            return self.pods[name].description()

        @app.get(f"{CORE}/pods/<name>/log")
        def read_log(name: str) -> Any:
            if request.args.get("previous", "false").lower() != "false":  # The client writes True.
                # A container that was never started again has no log before its own: kubelet says so.
                return {"message": f"previous terminated container in pod {name} not found"}, 400
            return (self.folder / name).with_suffix(".log").read_text()

        return app
