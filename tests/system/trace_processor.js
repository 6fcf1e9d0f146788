// Perfetto's trace processor, as its page runs it in a worker, between standard input and output:
//     node trace_processor.js FOLDER <requests >replies
// FOLDER holds engine_bundle.js and trace_processor.wasm; both streams are TraceProcessorRpcStream.
const fs = require("fs");
const path = require("path");
const vm = require("vm");

const file = (name) => fs.readFileSync(path.join(process.argv[2], name));

class FileRequest {
  open(method, name) { this.name = name; }
  send() { this.response = file(this.name); }
}

const worker = {
  WorkerGlobalScope: Object, XMLHttpRequest: FileRequest, location: { href: "http://worker/" },
  console: { log() {}, warn() {}, error: console.error },
  WebAssembly, TypeError, TextDecoder, URL, Uint8Array, crypto, performance, setTimeout,
};
worker.self = worker;
process.on("uncaughtException", (error) => {
  console.error(String(error), String(error.stack).slice(-600));
  process.exit(1);
});
process.on("unhandledRejection", (error) => { throw error; });
const port = { postMessage: (reply) => fs.writeSync(1, reply) };
vm.runInNewContext(file("engine_bundle.js").toString(), worker);
worker.onmessage({ data: port });
setTimeout(() => port.onmessage({ data: new Uint8Array(fs.readFileSync(0)) }), 0);
