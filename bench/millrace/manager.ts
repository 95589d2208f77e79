/** The manager process of most works. */
import { serveManager } from "./serveManager.ts"

serveManager({})
