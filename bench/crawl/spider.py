"""Scrapy as a role: one line of JSON in, one crawl, one line of JSON out. Told to be fast: see `settings`."""

import json
import resource
import sys
import time

import scrapy
from scrapy.crawler import CrawlerRunner
from scrapy.utils.log import configure_logging
from twisted.internet import reactor, stdio
from twisted.protocols.basic import LineReceiver

configure_logging(install_root_handler=False)


def settings(concurrency):
    return {
        "CONCURRENT_REQUESTS": concurrency,
        "CONCURRENT_REQUESTS_PER_DOMAIN": concurrency,
        "DOWNLOAD_DELAY": 0,
        "AUTOTHROTTLE_ENABLED": False,
        "ROBOTSTXT_OBEY": False,
        "COOKIES_ENABLED": False,
        "RETRY_ENABLED": False,
        "REDIRECT_ENABLED": False,
        "COMPRESSION_ENABLED": False,
        "METAREFRESH_ENABLED": False,
        "HTTPPROXY_ENABLED": False,
        "REFERER_ENABLED": False,
        "TELNETCONSOLE_ENABLED": False,
        "MEMUSAGE_ENABLED": False,
        "LOG_ENABLED": False,
        "REQUEST_FINGERPRINTER_IMPLEMENTATION": "2.7",
    }


class Pages(scrapy.Spider):
    name = "pages"
    allowed_domains = ["127.0.0.1"]

    def __init__(self, url, visited):
        super().__init__()
        self.url = url
        self.visited = visited

    def start_requests(self):
        # Filtered like the others: pages link to it.
        yield scrapy.Request(self.url)

    def parse(self, response):
        self.visited.append(response.url.partition("#")[0])
        for href in response.css("a::attr(href)").getall():
            yield response.follow(href)


def cpu_seconds():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Role(LineReceiver):
    delimiter = b"\n"

    def lineReceived(self, line):
        crawl = json.loads(line)
        visited = []
        cpu, began = cpu_seconds(), time.monotonic()

        def done(_):
            seconds, used = time.monotonic() - began, cpu_seconds() - cpu
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            self.answer(
                {"visited": visited, "seconds": seconds, "cpuSeconds": used, "peakRssBytes": peak}
            )

        runner = CrawlerRunner(settings(crawl["concurrency"]))
        crawling = runner.crawl(Pages, url=crawl["url"], visited=visited)
        crawling.addCallbacks(done, lambda failure: self.answer({"error": failure.getErrorMessage()}))

    def answer(self, value):
        self.sendLine(json.dumps(value).encode())

    def connectionLost(self, reason):
        if reactor.running:
            reactor.stop()


if __name__ == "__main__":
    stdio.StandardIO(Role())
    reactor.run()
