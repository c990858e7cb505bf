package config

import (
	"net/netip"
	"strings"
	"testing"

	"culvert/internal/proxyproto"
)

func TestBalancerInFront(t *testing.T) {
	run(t, func(dir string, flags []string) error {
		var cfg Server
		settings := Describe(&cfg, Mixed)
		cfg.Mode = Mixed
		set(t, settings, append(flags, "--insecure-no-auth"))
		return settings.Check(cfg.Resolve(Environment{Lookup: lookup(map[string]string{"HOME": dir})}))
	}, []typed{
		{"off, as the seeds write it", "--lb-proxy-protocol= --proxy-protocol=", ""},
		{"version 1", "--lb-proxy-protocol=v1", ""},
		{"version 2", "--lb-proxy-protocol=v2", ""},
		{"either", "--lb-proxy-protocol=auto --lb-trusted=10.0.0.0/8,2001:db8::1", ""},
		{"another word", "--lb-proxy-protocol=v3", `--lb-proxy-protocol: "v3" is unknown; use v1, v2, auto or "" for off`},
		{"a version that cannot be sent", "--proxy-protocol=auto", `--proxy-protocol: "auto" is unknown; use v1, v2 or "" for off`},
		{"not a network", "--lb-proxy-protocol=v1 --lb-trusted=lb.example.com", `--lb-trusted: "lb.example.com" is neither an address nor a CIDR; write it as in 10.0.0.0/8 or 2001:db8::/32`},
		{"trusted, and nothing to trust", "--lb-trusted=10.0.0.0/8", "--lb-trusted: not used without --lb-proxy-protocol; give --lb-proxy-protocol auto too"},
		{"trusted for the health port alone", "--lb-trusted=10.0.0.0/8 --health-addr=:8081", ""},
	})
}

func TestTrustedIsPrivateUnlessSaid(t *testing.T) {
	var b Balancer
	trusted, assumed := b.Trusted()
	if !assumed {
		t.Error("the list was not said to be assumed")
	}
	for addr, want := range map[string]bool{
		"10.1.2.3": true, "172.31.0.1": true, "192.168.0.1": true, "127.0.0.1": true, "::1": true, "fd00::1": true, "fe80::1": true,
		"172.32.0.1": false, "8.8.8.8": false, "100.64.0.1": false, "2001:db8::1": false, "0.0.0.0": false,
	} {
		got := false
		for _, p := range trusted {
			got = got || p.Contains(netip.MustParseAddr(addr))
		}
		if got != want {
			t.Errorf("%s: trusted %t, want %t", addr, got, want)
		}
	}
	b.LBTrusted = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	if trusted, assumed := b.Trusted(); assumed || len(trusted) != 1 {
		t.Errorf("got %v, assumed %t", trusted, assumed)
	}
}

func TestBlankValueTakesBackAnother(t *testing.T) {
	var cfg Server
	settings := Describe(&cfg, TCP)
	set(t, settings, []string{"--proxy-protocol=v2", "--lb-proxy-protocol=v1", "--lb-proxy-protocol="})
	if cfg.ExpectsProxy() || cfg.Emission() != (proxyproto.Emission{Version: proxyproto.V2}) {
		t.Errorf("got %+v", cfg.Balancer)
	}
	settings.ReadEnvironment("CULVERT_TCP_SERVER", Environment{Lookup: lookup(map[string]string{"CULVERT_TCP_SERVER_LB_PROXY_PROTOCOL": "v1"})})
	if cfg.ExpectsProxy() {
		t.Error("the environment won over an empty flag")
	}
}

func TestServiceHeaderOfAClient(t *testing.T) {
	off, v1, v2 := proxyproto.Off, proxyproto.V1, proxyproto.V2
	for flags, want := range map[string]*proxyproto.Version{
		"": nil, "--proxy-protocol=server": nil, "--proxy-protocol=": &off, "--proxy-protocol=v1": &v1, "--proxy-protocol=v2": &v2,
	} {
		var cfg Client
		settings := Describe(&cfg, Mixed)
		set(t, settings, strings.Fields(flags))
		got := cfg.ServiceHeader()
		if (got == nil) != (want == nil) || got != nil && *got != *want {
			t.Errorf("%q: got %v, want %v", flags, got, want)
		}
	}
}
