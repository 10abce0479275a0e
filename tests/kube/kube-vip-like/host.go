package main

import (
	"fmt"
	"log/slog"
	"math"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// host carries the VIPs on an interface while this process leads. Its kernel answers for them.
type host struct {
	link netlink.Link
	vips []*netlink.Addr

	// mu guards the rest, and the addresses on the interface.
	mu       sync.Mutex
	carrying bool
	finished bool
	// kube-vip sends ARP requests and replies in turn, with one switch for all VIPs.
	asRequest bool
}

// newHost has no VIPs, and needs no interface, if list is empty.
func newHost(iface, list string) (*host, error) {
	h := &host{asRequest: true}
	if list == "" {
		return h, nil
	}
	link, err := netlink.LinkByName(iface)
	if err != nil {
		return nil, fmt.Errorf("cannot find interface %q: %w", iface, err)
	}
	h.link = link
	for _, text := range strings.Split(list, ",") {
		ip := net.ParseIP(text)
		if ip == nil {
			return nil, fmt.Errorf("%q is not an address", text)
		}
		h.vips = append(h.vips, address(ip))
	}
	return h, nil
}

// address is a host address that lives for ever and is deprecated, so that the host does not use it
// as a source.
func address(ip net.IP) *netlink.Addr {
	addr := &netlink.Addr{PreferedLft: 0, ValidLft: math.MaxInt}
	if v4 := ip.To4(); v4 != nil {
		addr.IPNet = &net.IPNet{IP: v4, Mask: net.CIDRMask(32, 32)}
	} else {
		addr.IPNet = &net.IPNet{IP: ip, Mask: net.CIDRMask(128, 128)}
		addr.Flags = unix.IFA_F_NODAD
	}
	return addr
}

// carry adds the VIPs.
func (h *host) carry() {
	h.mu.Lock()
	defer h.mu.Unlock()
	// client-go calls this on a goroutine of its own. Leadership may be lost already.
	if h.finished {
		return
	}
	h.carrying = true
	for _, vip := range h.vips {
		h.add(vip)
	}
}

func (h *host) carries() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.carrying && len(h.vips) > 0
}

// withdraw deletes the VIPs.
func (h *host) withdraw() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.carrying = false
	for _, vip := range h.vips {
		if !h.isSet(vip) {
			continue
		}
		if err := netlink.AddrDel(h.link, vip); err != nil {
			slog.Error("failed to delete IP", "address", vip.IP, "err", err)
			continue
		}
		slog.Info("deleted address", "IP", vip.IP)
	}
}

// finish deletes the VIPs for good.
func (h *host) finish() {
	h.mu.Lock()
	h.finished = true
	h.mu.Unlock()
	h.withdraw()
}

// announceEvery puts back what is missing on the interface and sends one frame for each VIP, at each
// tick.
func (h *host) announceEvery(interval time.Duration) {
	for range time.Tick(interval) {
		h.mu.Lock()
		if h.carrying {
			for _, vip := range h.vips {
				if !h.isSet(vip) {
					h.add(vip)
				}
				h.announce(vip.IP)
			}
		}
		h.mu.Unlock()
	}
}

func (h *host) add(vip *netlink.Addr) {
	if err := netlink.AddrReplace(h.link, vip); err != nil {
		slog.Error("failed to add IP", "address", vip.IP, "err", err)
		return
	}
	slog.Info("added address", "IP", vip.IP)
}

func (h *host) isSet(vip *netlink.Addr) bool {
	found, err := netlink.AddrList(h.link, netlink.FAMILY_ALL)
	if err != nil {
		slog.Error("cannot list addresses", "err", err)
	}
	for _, addr := range found {
		if addr.IP.Equal(vip.IP) {
			return true
		}
	}
	return false
}

func (h *host) announce(ip net.IP) {
	attrs := h.link.Attrs()
	var err error
	if v4 := ip.To4(); v4 != nil {
		h.asRequest = !h.asRequest
		err = sendARP(attrs.Index, gratuitousARP(v4, attrs.HardwareAddr, h.asRequest))
	} else {
		err = sendAdvertisement(attrs.Index, unsolicitedAdvertisement(ip, attrs.HardwareAddr))
	}
	if err != nil {
		slog.Warn("cannot announce", "address", ip, "err", err)
	}
}
