import * as net from "node:net"
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import * as Fetch from "../../../src/crawl/Fetch.ts"
import * as Limits from "../../../src/Limits.ts"
import { serve } from "./server.ts"

const read = (response: Fetch.FetchResponse) =>
  Effect.map(Stream.runCollect(response.body), (chunks) => Buffer.concat(chunks).toString())

const open = (url: string, options?: Fetch.OpenOptions) =>
  Effect.flatMap(Fetch.Fetch, (fetch) => fetch.open(url, options))

const failure = (url: string, options?: Fetch.OpenOptions) => Effect.flip(Effect.flatMap(open(url, options), read))

const withFetch = Effect.provide(Fetch.layer)

describe("Fetch", () => {
  it.live("gives status, headers, final URL and body, and says who it is", () =>
    Effect.gen(function* () {
      const { origin } = yield* serve((request, response) => {
        response.setHeader("X-Twice", ["a", "b"])
        response.writeHead(404).end(JSON.stringify(request.headers))
      })
      const response = yield* open(`${origin}/x?y#z`, {
        accept: "text/html",
        referer: `${origin.replace("//", "//u:p@")}/r#f`
      })
      assert.strictEqual(response.status, 404)
      assert.strictEqual(response.headers["x-twice"], "a, b")
      assert.strictEqual(response.url, `${origin}/x?y`)
      assert.deepStrictEqual(response.redirects, [])
      const sent = JSON.parse(yield* read(response))
      assert.strictEqual(sent["user-agent"], "millrace/0.1 (crawler)")
      assert.strictEqual(sent["accept-encoding"], "identity")
      assert.strictEqual(sent["accept"], "text/html")
      assert.strictEqual(sent["referer"], `${origin}/r`)
    }).pipe(withFetch)
  )

  it.live("follows every kind of redirect and reports the hops", () =>
    Effect.gen(function* () {
      const statuses = [301, 302, 303, 307, 308]
      const { origin } = yield* serve((request, response, origin) => {
        const at = Number(request.url!.slice(1))
        if (at === statuses.length) return response.end("there")
        const next = at % 2 === 0 ? `${at + 1}` : `${origin}/${at + 1}`
        return response.writeHead(statuses[at]!, { location: next }).end("moved ".repeat(at * 10_000))
      })
      const response = yield* open(`${origin}/0`)
      assert.strictEqual(yield* read(response), "there")
      assert.strictEqual(response.url, `${origin}/5`)
      assert.deepStrictEqual(
        response.redirects,
        statuses.map((_, i) => `${origin}/${i}`)
      )
    }).pipe(withFetch)
  )

  it.live("follows at most redirectsMax redirects", () =>
    Effect.gen(function* () {
      const { origin } = yield* serve((request, response) => {
        const left = Number(request.url!.slice(1))
        if (left === 0) return response.end("there")
        return response.writeHead(302, { location: `/${left - 1}` }).end()
      })
      const max = Limits.redirectsMax
      assert.strictEqual((yield* open(`${origin}/${max}`)).status, 200)
      const error = yield* failure(`${origin}/${max + 1}`)
      assert.deepStrictEqual(
        [error.cause, error.url, Fetch.retryable(error)],
        ["redirect", `${origin}/${max + 1}`, false]
      )
      assert.strictEqual((yield* failure(`${origin}/1`, { maxRedirects: 0 })).cause, "redirect")
      assert.strictEqual((yield* failure(`${origin}/${max + 1}`, { maxRedirects: 1_000 })).cause, "redirect")
    }).pipe(withFetch)
  )

  it.live("refuses loops and other schemes, and returns a redirect without a target", () =>
    Effect.gen(function* () {
      const locations: Record<string, string> = {
        "/self": "/self#other",
        "/a": "/b",
        "/b": "/a",
        "/ftp": "ftp://127.0.0.1/",
        "/js": "javascript:1",
        "/bad": "http://[",
        "/long": `/${"x".repeat(Limits.urlCharsMax)}`
      }
      const { origin } = yield* serve((request, response) => {
        const location = locations[request.url!]
        response.writeHead(302, location === undefined ? {} : { location }).end()
      })
      for (const path of Object.keys(locations))
        assert.strictEqual((yield* failure(origin + path)).cause, "redirect", path)
      assert.strictEqual((yield* open(`${origin}/none`)).status, 302)
    }).pipe(withFetch)
  )

  it.live("asks `allow` for every hop", () =>
    Effect.gen(function* () {
      const { origin } = yield* serve((request, response) =>
        request.url === "/end" ? response.end("there") : response.writeHead(302, { location: "/end" }).end()
      )
      const asked: Array<string> = []
      const allow = (url: URL) => asked.push(url.pathname) > 0 && url.pathname !== "/end"
      assert.strictEqual((yield* failure(`${origin}/start`, { allow })).cause, "scope")
      assert.deepStrictEqual(asked, ["/start", "/end"])
      assert.strictEqual((yield* failure("ftp://127.0.0.1/")).cause, "scope")
    }).pipe(withFetch)
  )

  it.live("names the cause when nobody listens, when the answer breaks off and when it is no HTTP", () =>
    Effect.gen(function* () {
      const { origin } = yield* serve((request, response) => {
        if (request.url === "/cut") {
          response.writeHead(200, { "content-length": 1_000 }).write("x")
          setTimeout(() => response.destroy(), 20)
        } else if (request.url === "/chunked") {
          response.writeHead(200).write("x")
          setTimeout(() => response.destroy(), 20)
        } else if (request.url === "/large") response.writeHead(200, { "x-large": "x".repeat(100_000) }).end()
        else if (request.url === "/noise") request.socket.end("HTTP/9.9 nonsense\r\n\r\n")
        else request.socket.destroy()
      })
      const port = yield* freePort
      assert.strictEqual((yield* failure(`http://127.0.0.1:${port}/`)).cause, "connect")
      assert.strictEqual((yield* failure(`${origin}/cut`)).cause, "reset")
      assert.strictEqual((yield* failure(`${origin}/chunked`)).cause, "reset")
      assert.strictEqual((yield* failure(`${origin}/gone`)).cause, "reset")
      assert.strictEqual((yield* failure(`${origin}/large`)).cause, "size")
      assert.strictEqual((yield* failure(`${origin}/noise`)).cause, "decode")
      assert.strictEqual((yield* failure(`https${origin.slice(4)}/`)).cause, "tls")
    }).pipe(withFetch)
  )

  it.live("gives up on silence before and inside of an answer", () =>
    Effect.gen(function* () {
      const { origin } = yield* serve((request, response) => {
        if (request.url === "/body") response.writeHead(200, { "content-length": 1_000 }).write("x")
      })
      assert.strictEqual((yield* failure(`${origin}/headers`)).cause, "headers")
      assert.strictEqual((yield* failure(`${origin}/body`)).cause, "idle")
    }).pipe(Effect.provide(Fetch.layerWith({ headersMs: 300, bodyIdleMs: 300 })))
  )

  it.live("destroys a body that nobody reads when the scope closes", () =>
    Effect.gen(function* () {
      const closed = yield* Deferred.make<void>()
      const { origin } = yield* serve((_, response) => {
        response.on("close", () => Deferred.doneUnsafe(closed, Effect.void))
        response.writeHead(200).write("endless")
      })
      assert.strictEqual((yield* Effect.scoped(open(origin))).status, 200)
      yield* Deferred.await(closed)
    }).pipe(withFetch)
  )

  it.live("aborts the request when it is interrupted, in the headers and in the body", () =>
    Effect.gen(function* () {
      for (const withHeaders of [false, true]) {
        const arrived = yield* Deferred.make<void>()
        const closed = yield* Deferred.make<void>()
        const { origin } = yield* serve((_, response) => {
          response.on("close", () => Deferred.doneUnsafe(closed, Effect.void))
          if (withHeaders) response.writeHead(200).write("x")
          Deferred.doneUnsafe(arrived, Effect.void)
        })
        const fiber = yield* Effect.forkChild(Effect.scoped(Effect.flatMap(open(origin), read)))
        yield* Deferred.await(arrived)
        yield* Fiber.interrupt(fiber)
        yield* Deferred.await(closed)
      }
    }).pipe(withFetch)
  )

  it.live("reads slowly when the reader is slow: the server does not run ahead", () =>
    Effect.gen(function* () {
      let written = 0
      const { origin } = yield* serve((_, response) => {
        const block = Buffer.alloc(64 * 1_024)
        const more = () => {
          while (!response.destroyed && response.write(block)) written += block.length
        }
        response.on("drain", more)
        more()
      })
      const { body } = yield* open(origin)
      const bytes = yield* body.pipe(
        Stream.tap(() => Effect.sleep("1 millis")),
        Stream.take(50),
        Stream.runFold(
          () => 0,
          (sum, chunk) => sum + chunk.length
        )
      )
      // kernel buffers of both sides, and no more
      assert.isBelow(written - bytes, 32 * 1_024 * 1_024)
    }).pipe(withFetch)
  )

  it.live("reads the wish of a server to wait", () =>
    Effect.gen(function* () {
      const { origin } = yield* serve((request, response) =>
        response.writeHead(Number(request.url!.slice(1)), { "retry-after": "3" }).end()
      )
      const errorOf = (status: number) => Effect.flatMap(open(`${origin}/${status}`), Fetch.statusError)
      const busy = yield* errorOf(503)
      assert.deepStrictEqual([busy?.cause, busy?.status, busy?.retryAfterMs], ["status", 503, 3_000])
      assert.isUndefined(yield* errorOf(200))
      assert.strictEqual((yield* errorOf(206))?.status, 206)
      assert.strictEqual((yield* errorOf(304))?.status, 304)
    }).pipe(withFetch)
  )
})

/** A port that was free a moment ago. */
const freePort = Effect.callback<number>((resume) => {
  const server = net.createServer().listen(0, "127.0.0.1", () => {
    const { port } = server.address() as net.AddressInfo
    server.close(() => resume(Effect.succeed(port)))
  })
})
