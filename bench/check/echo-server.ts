/** The other end of the echo: reads each message of the prototype's frames, and writes it back. */
import { once } from "node:events"
import { createServer, type Socket } from "node:net"
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

const port = async (): Promise<number> => {
  await once(server.listen(0, "127.0.0.1"), "listening")
  const address = server.address()
  if (address === null || typeof address === "string") throw new Error("no port")
  return address.port
}

serve({ port }, async () => {
  for (const socket of sockets) socket.destroy()
  server.close()
})
