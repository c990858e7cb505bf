# One line a target. CONTRIBUTING.md says when to use which.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  = -s -w -X main.version=$(VERSION)
FUZZTIME ?= 60s
BIN      = bin/culvert

.PHONY: build demo test test-long race fuzz lint fmt vuln cross size clean needs
build:            ; go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/culvert
demo:             ; go run ./cmd/culvert demo
test: needs       ; go test ./...
test-long: needs  ; CULVERT_TEST_LONG=1 go test -count=1 -timeout=60m ./...
race: needs       ; go test -race -timeout=20m ./...
fuzz:             ; .ci/fuzz $(FUZZTIME)
lint:             ; .ci/tool golangci-lint run ./...
fmt:              ; .ci/tool gofumpt -w .
vuln:             ; .ci/tool govulncheck ./...
cross:            ; .ci/cross
size: build       ; .ci/size $(BIN)
clean:            ; rm -rf bin dist
needs:            ; @.ci/needs
