/** Servers of the bench: on the loopback interface, on any free port. */
import { once } from "node:events"
import type { Server } from "node:net"

/** Answers the port once it listens. */
export const listen = async (server: Server): Promise<number> => {
  await once(server.listen(0, "127.0.0.1"), "listening")
  const address = server.address()
  if (address === null || typeof address === "string") throw new Error("no port")
  return address.port
}
