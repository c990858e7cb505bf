# One line a target. CONTRIBUTING.md says when to use which.
FUZZTIME ?= 60s
ROUNDS ?= 10

.PHONY: build demo test test-long race bench bench-tunnel bench-lb fuzz lint fmt vuln cross size clean needs
build:            ; go build -trimpath -buildvcs=auto -ldflags='-s -w' -o bin/culvert ./cmd/culvert
demo:             ; go run ./cmd/culvert demo
test: needs       ; go test -timeout=20m ./... && (cd internal/cli/generate/k8stest && go test ./...) && cd bench && go vet ./... && go test ./...
test-long: needs  ; CULVERT_TEST_LONG=1 go test -count=1 -timeout=60m ./...
race: needs       ; GORACE=atexit_sleep_ms=0 go test -race -timeout=30m ./...
bench:            ; .ci/bench $(ROUNDS)
bench-tunnel: build ; go build -C bench -o ../bin/tunnelbench ./tunnel && bin/tunnelbench $(BENCH)
bench-lb: build     ; go build -C bench -o ../bin/lbbench ./lb && bin/lbbench $(BENCH)
fuzz:             ; .ci/fuzz $(FUZZTIME)
lint:             ; .ci/tool golangci-lint run ./...
fmt:              ; .ci/tool gofumpt -w .
vuln:             ; .ci/tool govulncheck ./...
cross:            ; .ci/cross
size: build       ; .ci/size bin/culvert
clean:            ; rm -rf bin dist
needs:            ; @.ci/needs
