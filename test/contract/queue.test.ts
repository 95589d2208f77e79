import { describe } from "@effect/vitest"
import { inProcess, overTcp } from "./layers.ts"
import { suite } from "./queue.ts"

describe("a queue in this process", () => suite(inProcess))
describe("a queue over TCP", () => suite(overTcp))
