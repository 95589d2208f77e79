import { assert, describe, it } from "@effect/vitest"
import * as Charset from "../../../src/crawl/Charset.ts"

const detect = (text: string, contentType?: string) =>
  Charset.detect(
    Uint8Array.from(text, (char) => char.charCodeAt(0)),
    contentType
  )

describe("Charset", () => {
  it("asks the byte order mark, the header, the meta, in this order", () => {
    const meta = '<meta charset="shift_jis">'
    assert.deepStrictEqual(detect(`\xef\xbb\xbf${meta}`, "text/html; charset=gbk"), { label: "utf-8", source: "bom" })
    assert.deepStrictEqual(detect("\xff\xfe<\0"), { label: "utf-16le", source: "bom" })
    assert.deepStrictEqual(detect(meta, 'text/html; Charset="GBK"'), { label: "gbk", source: "header" })
    assert.deepStrictEqual(detect(meta, "text/html"), { label: "shift_jis", source: "meta" })
    assert.deepStrictEqual(detect("<p>"), { label: "utf-8", source: "default" })
  })

  it.each([
    { text: "<META http-equiv=Content-Type content='text/html; charset=windows-1251'>", label: "windows-1251" },
    { text: "<meta content='text/html; charset=koi8-r' http-equiv='content-type'>", label: "koi8-r" },
    { text: "<meta name=x content='charset=koi8-r'><meta charset=euc-kr>", label: "euc-kr" },
    { text: "<!-- <meta charset=gbk> --><meta/charset=big5>", label: "big5" },
    { text: "<a title='<meta charset=gbk>'><meta charset=big5>", label: "big5" },
    { text: "<?xml version='1.0'?><!doctype html><meta charset=big5>", label: "big5" },
    { text: "<meta charset=utf-16>", label: "utf-8" },
    { text: "<meta charset=x-user-defined>", label: "windows-1252" },
    { text: "<metacharset=gbk>", label: "utf-8" },
    { text: "<!-- <meta charset=gbk>", label: "utf-8" },
    { text: "<meta charset=gbk", label: "gbk" },
    { text: "<", label: "utf-8" },
    { text: '<meta =gbk charset="big5">', label: "big5" }
  ])("prescans $text", ({ label, text }) => {
    assert.strictEqual(detect(text).label, label)
  })

  it("does not look behind the first 1024 bytes", () => {
    assert.strictEqual(detect(`${" ".repeat(1_024)}<meta charset=gbk>`).source, "default")
  })

  it("falls back from a label it does not know, and reports it", () => {
    assert.deepStrictEqual(detect("<p>", "text/html; charset=klingon"), {
      label: "utf-8",
      source: "default",
      unknown: "klingon"
    })
    assert.deepStrictEqual(detect("<meta charset=gbk>", "text/html; charset=klingon"), { label: "gbk", source: "meta" })
  })
})
