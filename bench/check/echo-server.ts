/** The other end of the echo: reads each message of the prototype's frames, and writes it back. */
import { createServer, type Socket } from "node:net"
import { listen } from "../harness/listen.ts"
import { serve } from "../harness/role.ts"
import { Outbox, readFrames } from "../prototype/frames.ts"

const sockets = new Set<Socket>()
const server = createServer({ noDelay: true }, (socket) => {
  const out = new Outbox(socket)
  sockets.add(socket)
  socket.on("error", () => {})
  readFrames(
    socket,
    (type, number, input, from, to) => out.bytes(type, number, input.subarray(from, to)),
    () => out.flush()
  )
})

serve({ port: () => listen(server) }, async () => {
  for (const socket of sockets) socket.destroy()
  server.close()
})
