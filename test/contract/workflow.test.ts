import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { describe } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as WorkflowEngine from "effect/workflow/WorkflowEngine"
import { Manager, Store, Workflows } from "millrace"
import { inProcess, overTcp } from "./layers.ts"
import { suite } from "./workflow.ts"

const engine = Workflows.layer()

const onDisk = Layer.unwrap(
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "millrace-workflow-"))),
      (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
    ),
    (directory) => Manager.layer({ queues: [] }).pipe(Layer.provide(Store.layerSqlite({ directory })))
  )
)

describe("workflows, on Effect's engine in memory", () => suite(WorkflowEngine.layerMemory))
describe("workflows, at a manager in process", () => suite(Layer.provide(engine, inProcess)))
describe("workflows, at a manager over TCP", () => suite(Layer.provide(engine, overTcp)))
describe("workflows, at a manager with a disk", () => suite(Layer.provide(engine, onDisk)))
