"""Serves a trained table over HTTP with onnxruntime; neither distnn nor MPI is needed here.

python -m distnn.train --data penguins.csv --target species --run-dir runs/penguins
python -m distnn.export runs/penguins --output penguins.onnx
python examples/serve_onnx.py penguins.onnx 8000

curl localhost:8000 -d '[{"island": "Dream", "bill length": 44.1, "mass": null}]'
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import onnxruntime

MOST_BYTES = 1 << 20  # of a request
NUMBERS = {"tensor(float)": np.float32, "tensor(double)": np.float64}


def inputs(session, rows):
    """Rows as dictionaries, as the model's inputs: null is NaN, or empty text."""
    first, *others = session.get_inputs()
    if not others:  # numbers alone: one matrix
        names = json.loads(session.get_modelmeta().custom_metadata_map["columns"])
        table = [[np.nan if row[name] is None else row[name] for name in names] for row in rows]
        return {first.name: np.array(table, NUMBERS[first.type])}
    columns = {}
    for one in (first, *others):
        values = [row[one.name] for row in rows]
        if one.type in NUMBERS:
            values = np.array([np.nan if v is None else v for v in values], NUMBERS[one.type])
        else:
            values = np.array(["" if v is None else str(v) for v in values], object)
        columns[one.name] = values[:, None]
    return columns


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        try:
            length = int(self.headers["Content-Length"])
            if length > MOST_BYTES:
                raise ValueError("too many rows")
            rows = json.loads(self.rfile.read(length))
            names = [output.name for output in self.server.session.get_outputs()]
            found = self.server.session.run(names, inputs(self.server.session, rows))
            answer = {name: a.tolist() for name, a in zip(names, found, strict=True)}
            self.answer(200, answer)
        except (ValueError, KeyError, TypeError) as error:
            self.answer(400, {"error": f"{type(error).__name__}: {error}"})

    def answer(self, code, content):
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler)
    server.session = onnxruntime.InferenceSession(sys.argv[1])
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
