/** A small client of beanstalkd: one connection; commands of one turn of the event loop leave in one write. */
import { connect, type Socket } from "node:net"

export interface Answer {
  /** Words of the answer's first line. */
  readonly words: ReadonlyArray<string>
  /** What follows it, of `RESERVED` and `OK`. */
  readonly body: string
}

interface Waiting {
  readonly resolve: (answer: Answer) => void
  readonly reject: (error: Error) => void
}

/** Seconds after which a reserved job that was not deleted comes back. */
const timeToRun = 30

export class Beanstalk {
  readonly #socket: Socket
  #waiting: Array<Waiting> = []
  #head = 0
  #reserved = 0
  #out: Array<string> = []
  #input: Buffer = Buffer.alloc(0)

  constructor(port: number) {
    this.#socket = connect({ port, host: "127.0.0.1", noDelay: true })
    this.#socket.on("data", (data: Buffer) => this.#read(data))
    this.#socket.on("error", (error) => this.#fail(error))
    this.#socket.on("close", () => this.#fail(new Error("the connection to beanstalkd ended")))
  }

  send(command: string): Promise<Answer> {
    if (this.#out.length === 0) setImmediate(() => this.#flush())
    this.#out.push(`${command}\r\n`)
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }))
  }

  /** Fails unless the answer begins with `word`. */
  async expect(word: string, command: string): Promise<Answer> {
    const answer = await this.send(command)
    if (answer.words[0] !== word) throw new Error(`"${answer.words.join(" ")}" in answer to ${command.split(" ")[0]}`)
    return answer
  }

  put(body: string): Promise<Answer> {
    return this.expect("INSERTED", `put 1024 0 ${timeToRun} ${Buffer.byteLength(body)}\r\n${body}`)
  }

  /** Puts into one tube and reserves from another. */
  async tubes(use: string, watch: string): Promise<void> {
    await Promise.all([
      this.expect("USING", `use ${use}`),
      this.expect("WATCHING", `watch ${watch}`),
      this.expect("WATCHING", "ignore default")
    ])
  }

  /**
   * Up to `most` jobs: waits a second for the first, and takes the others if they are there. Asks for at most twice as many
   * as came the last time: the server spends as much on a "no" as on a job.
   */
  async reserve(most: number): Promise<ReadonlyArray<{ readonly id: string; readonly body: string }>> {
    const length = Math.min(most, 2 * this.#reserved + 1)
    const asked = Array.from({ length }, (_, i) => this.send(`reserve-with-timeout ${i === 0 ? 1 : 0}`))
    const jobs: Array<{ readonly id: string; readonly body: string }> = []
    for (const { body, words } of await Promise.all(asked)) {
      if (words[0] === "RESERVED") jobs.push({ id: words[1]!, body })
      else if (words[0] !== "TIMED_OUT") throw new Error(`"${words.join(" ")}" in answer to reserve`)
    }
    this.#reserved = jobs.length
    return jobs
  }

  close(): void {
    this.#socket.removeAllListeners("close")
    this.#socket.destroy()
  }

  #flush(): void {
    this.#socket.write(this.#out.join(""))
    this.#out = []
  }

  #fail(error: Error): void {
    const waiting = this.#waiting.slice(this.#head)
    this.#waiting = []
    this.#head = 0
    for (const { reject } of waiting) reject(error)
  }

  #read(data: Buffer): void {
    const input = this.#input.length === 0 ? data : Buffer.concat([this.#input, data])
    let at = 0
    while (at < input.length) {
      const end = input.indexOf("\r\n", at, "latin1")
      if (end < 0) break
      const words = input.toString("latin1", at, end).split(" ")
      let next = end + 2
      let body = ""
      if (words[0] === "RESERVED" || words[0] === "OK") {
        const length = Number(words.at(-1))
        if (input.length < next + length + 2) break
        body = input.toString("utf8", next, next + length)
        next += length + 2
      }
      at = next
      this.#waiting[this.#head++]?.resolve({ words, body })
    }
    this.#input = input.subarray(at)
    if (this.#head > 1_024) {
      this.#waiting.splice(0, this.#head)
      this.#head = 0
    }
  }
}
