import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fetch from "../../../src/crawl/Fetch.ts"
import { fetchPage } from "../../../src/crawl/Page.ts"
import * as Limits from "../../../src/Limits.ts"
import { serve } from "./server.ts"

const withFetch = Effect.provide(Fetch.layer)

describe("fetchPage", () => {
  it.live("reads a page that arrives in pieces, below the URL it was redirected to", () =>
    Effect.gen(function* () {
      const { origin } = yield* serve((request, response) => {
        if (request.url === "/old") return response.writeHead(301, { location: "/new/" }).end()
        response.writeHead(200, { "content-type": "TEXT/HTML; charset=utf-8" })
        const html = Buffer.from('<title>Käse</title><a href="ü">1</a><img src="b.png">')
        let at = 0
        const next = () => {
          if (at >= html.length) return void response.end()
          response.write(html.subarray(at, ++at))
          setImmediate(next)
        }
        return next()
      })
      const page = yield* fetchPage(`${origin}/old`)
      assert.deepStrictEqual(page, {
        url: `${origin}/old`,
        finalUrl: `${origin}/new/`,
        redirects: [`${origin}/old`],
        status: 200,
        bytes: 55,
        charset: { label: "utf-8", source: "header" },
        title: "Käse",
        links: [`${origin}/new/%C3%BC`],
        images: [`${origin}/new/b.png`],
        dropped: 0
      })
    }).pipe(withFetch)
  )

  it.live("decodes by the meta, and by UTF-8 where the label is unknown", () =>
    Effect.gen(function* () {
      const { origin } = yield* serve((request, response) => {
        const kind = request.url!.slice(1)
        const type = kind === "unknown" ? "text/html; charset=klingon" : "application/xhtml+xml"
        const meta = kind === "unknown" ? "" : `<meta charset=${kind}>`
        response.writeHead(200, { "content-type": type })
        const body =
          kind === "shift_jis"
            ? Buffer.from("8393835a", "hex")
            : Buffer.from("é", kind === "unknown" ? "utf8" : "latin1")
        response.end(Buffer.concat([Buffer.from(`${meta}<title>`), body, Buffer.from("</title>")]))
      })
      assert.strictEqual((yield* fetchPage(`${origin}/windows-1252`)).title, "é")
      assert.strictEqual((yield* fetchPage(`${origin}/shift_jis`)).title, "ンセ")
      const page = yield* fetchPage(`${origin}/unknown`)
      assert.deepStrictEqual([page.title, page.charset.unknown], ["é", "klingon"])
    }).pipe(withFetch)
  )

  it.live("refuses what is no page, and errors", () =>
    Effect.gen(function* () {
      const { origin } = yield* serve((request, response) => {
        if (request.url === "/png") response.writeHead(200, { "content-type": "image/png" }).end("x")
        else if (request.url === "/none") response.writeHead(200).end("<p>")
        else if (request.url === "/gzip") {
          response.writeHead(200, { "content-type": "text/html", "content-encoding": "gzip" }).end("x")
        } else response.writeHead(404, { "content-type": "text/html" }).end("<a href=x>")
      })
      const error = (path: string) => Effect.flip(fetchPage(origin + path))
      assert.strictEqual((yield* error("/png")).cause, "type")
      assert.strictEqual((yield* error("/none")).cause, "type")
      assert.strictEqual((yield* error("/gzip")).cause, "decode")
      const missing = yield* error("/missing")
      assert.deepStrictEqual([missing.cause, missing.status], ["status", 404])
    }).pipe(withFetch)
  )

  it.live("takes a page of the largest size and refuses one byte more, announced or not", () =>
    Effect.gen(function* () {
      const { origin } = yield* serve((request, response) => {
        const [, size, announced] = request.url!.split("/")
        const head = { "content-type": "text/html" }
        const body = Buffer.alloc(Number(size), 32)
        if (announced === "announced") response.writeHead(200, { ...head, "content-length": body.length }).end(body)
        else response.writeHead(200, head).write(body, () => response.end())
      })
      const max = 3_000
      const fetch = (path: string) => fetchPage(origin + path, { bytesMax: max })
      for (const how of ["announced", "silent"]) {
        assert.strictEqual((yield* fetch(`/${max - 1}/${how}`)).bytes, max - 1)
        assert.strictEqual((yield* fetch(`/${max}/${how}`)).bytes, max)
        assert.strictEqual((yield* Effect.flip(fetch(`/${max + 1}/${how}`))).cause, "size")
      }
      assert.strictEqual((yield* Effect.flip(fetchPage(`${origin}/${Limits.pageBytesMax + 1}/silent`))).cause, "size")
      assert.strictEqual((yield* fetchPage(`${origin}/${Limits.pageBytesMax}/silent`)).bytes, Limits.pageBytesMax)
    }).pipe(withFetch)
  )
})
