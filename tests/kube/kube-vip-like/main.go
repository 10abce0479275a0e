// kube-vip-like stands in for kube-vip v1.2.3 in labs: ARP mode, the VIP of the control plane.
// The election is client-go's own with kube-vip's settings. What happens on the host is as in kube-vip.
//
// It does less than kube-vip:
//   - It has no Services, no BGP, no routing table, no DNS or DHCP, no load balancer.
//   - It does not write the label of the Node. --release-delay-address is the time that kube-vip
//     needs to remove that label, up to 10 s, before it deletes the address.
//   - An IPv6 address never has duplicate address detection, as with vip_skipdad=true.
//   - --arp-rate may be below 500 ms, which kube-vip replaces by 3 s.
//   - After it has lost leadership it exits, as kube-vip does. No kubelet starts it again.
//
// It differs in one order: at SIGTERM, kube-vip deletes the address while client-go releases the
// Lease. Here the address goes after the release, as in kube-vip when a renewal fails.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const usage = `kube-vip-like run [flags]             be a candidate, and carry the VIPs as leader
kube-vip-like renew-as NAME [flags]   the same under another identity
kube-vip-like blank [flags]           empty the holder of the Lease, as a release by client-go does
`

type settings struct {
	identity   string
	kubeconfig string
	namespace  string
	lease      string

	leaseDuration time.Duration
	renewDeadline time.Duration
	retryPeriod   time.Duration
	old           bool

	vips      string
	iface     string
	arpRateMs int

	releaseDelayAddress time.Duration
	lateRelease         time.Duration
}

func main() {
	if err := start(os.Args[1:]); err != nil {
		slog.Error("kube-vip-like failed", "err", err)
		os.Exit(1)
	}
}

func start(words []string) error {
	if len(words) == 0 {
		return fmt.Errorf("no command\n%s", usage)
	}
	command, words := words[0], words[1:]
	var s settings
	if command == "renew-as" && len(words) > 0 {
		s.identity, words = words[0], words[1:]
	}
	if err := s.parse(words); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	switch command {
	case "run", "renew-as":
		return run(ctx, s)
	case "blank":
		return blank(ctx, s)
	}
	return fmt.Errorf("there is no command %q\n%s", command, usage)
}

func (s *settings) parse(words []string) error {
	flags := flag.NewFlagSet("kube-vip-like", flag.ContinueOnError)
	flags.StringVar(&s.identity, "identity", s.identity, "name of the node, the holderIdentity")
	flags.StringVar(&s.kubeconfig, "kubeconfig", "/etc/kubernetes/admin.conf", "how to reach the API")
	flags.StringVar(&s.namespace, "lease-namespace", "kube-system", "namespace of the Lease")
	flags.StringVar(&s.lease, "lease-name", "plndr-cp-lock", "name of the Lease")
	flags.DurationVar(&s.leaseDuration, "lease-duration", 5*time.Second, "vip_leaseduration")
	flags.DurationVar(&s.renewDeadline, "renew-deadline", 3*time.Second, "vip_renewdeadline")
	flags.DurationVar(&s.retryPeriod, "retry-period", time.Second, "vip_retryperiod")
	flags.BoolVar(&s.old, "old", false,
		"wait for the own lease duration instead of the record's, as client-go did up to 0.26")
	flags.StringVar(&s.vips, "vip", "", "addresses, separated by commas; none: only the election")
	flags.StringVar(&s.iface, "interface", "eth0", "vip_interface")
	flags.IntVar(&s.arpRateMs, "arp-rate", 3000, "vip_arpRate, ms")
	flags.DurationVar(&s.releaseDelayAddress, "release-delay-address", 50*time.Millisecond,
		"the address is deleted this long after the release of the Lease")
	flags.DurationVar(&s.lateRelease, "late-release", 0,
		"after SIGTERM the address stays this much longer")
	if err := flags.Parse(words); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unknown word %q\n%s", flags.Arg(0), usage)
	}
	if s.arpRateMs <= 0 {
		return fmt.Errorf("--arp-rate is %d ms", s.arpRateMs)
	}
	return nil
}

// run is a candidate until it is told to stop or has lost leadership.
func run(ctx context.Context, s settings) error {
	if s.identity == "" {
		name, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("no --identity and no host name: %w", err)
		}
		s.identity = strings.ToLower(name)
	}
	host, err := newHost(s.iface, s.vips)
	if err != nil {
		return err
	}
	// kube-vip removes what an earlier process has left before it is a candidate.
	host.withdraw()
	// The ticker runs from the start of the process. So the first announcement follows the take-over
	// after a random part of the interval.
	go host.announceEvery(time.Duration(s.arpRateMs) * time.Millisecond)
	return elect(ctx, s, host)
}
