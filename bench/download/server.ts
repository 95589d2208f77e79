/** Serves a folder over HTTP on loopback: nginx, or a small server of Node where nginx is not installed. */
import { execFileSync } from "node:child_process"
import { mkdirSync } from "node:fs"
import { join } from "node:path"
import process from "node:process"
import { type Context, findProgram, startProgram } from "../peers/system.ts"
import { otherCore } from "./cores.ts"

export interface Server {
  readonly port: number
  /** For the output. */
  readonly name: string
}

const configuration = (work: string, root: string): string => `
${process.getuid?.() === 0 ? "user root;" : ""}
daemon off; worker_processes 1; pid ${work}/nginx.pid; error_log stderr error;
events { worker_connections 1024; }
http {
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; default_type application/octet-stream;
  open_file_cache max=100000 inactive=600s;
  client_body_temp_path ${work}/body; proxy_temp_path ${work}/proxy; fastcgi_temp_path ${work}/fastcgi;
  uwsgi_temp_path ${work}/uwsgi; scgi_temp_path ${work}/scgi;
  server { listen 127.0.0.1:{port}; root ${root}; }
}
`

const nginxVersion = (nginx: string): string =>
  // it says so on standard error
  execFileSync("/bin/sh", ["-c", '"$0" -v 2>&1', nginx], { encoding: "utf8" }).match(/nginx\/[\d.]+/)?.[0] ?? "nginx"

export const startServer = async (context: Pick<Context, "start" | "folder">, root: string): Promise<Server> => {
  const nginx = findProgram("nginx")
  if (nginx === undefined) {
    const host = context.start({
      name: "static server",
      script: new URL("./static-server.ts", import.meta.url),
      env: { BENCH_ROOT: root },
      through: otherCore
    })
    return { port: await host.call<number>("port"), name: "a static server on Node (nginx is not installed)" }
  }
  mkdirSync(context.folder, { recursive: true })
  const path = join(context.folder, "nginx.conf")
  const [command, ...args] = [...otherCore, nginx, "-p", context.folder, "-c", path, "-e", "stderr"]
  const files = [{ path, text: configuration(context.folder, root) }]
  const { port } = await startProgram(context, "nginx", { command: command!, args, files })
  return { port, name: `${nginxVersion(nginx)}, one worker` }
}
