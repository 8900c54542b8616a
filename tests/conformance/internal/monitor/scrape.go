package monitor

import (
	"fmt"
	"math"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"detcd.io/conformance/internal/process"
)

// scrape is what one member tells on /metrics, by the names of the families.
type scrape map[string]*dto.MetricFamily

func scrapeOf(member *process.Member) (scrape, error) {
	code, body, err := member.Get("/metrics")
	if err != nil {
		return nil, err
	}
	if code != 200 {
		return nil, fmt.Errorf("/metrics answers %d", code)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	return parser.TextToMetricFamilies(strings.NewReader(body))
}

// shape is what a dashboard relies on: type, names of labels, ends of buckets.
func shape(family *dto.MetricFamily) string {
	var names []string
	var ends []string
	for _, metric := range family.Metric {
		for _, label := range metric.Label {
			if !slices.Contains(names, label.GetName()) {
				names = append(names, label.GetName())
			}
		}
		for _, bucket := range metric.GetHistogram().GetBucket() {
			if end := fmt.Sprint(bucket.GetUpperBound()); !slices.Contains(ends, end) {
				ends = append(ends, end)
			}
		}
	}
	slices.Sort(names)
	return fmt.Sprintf("%v, labels %v, buckets %v", family.GetType(), names, ends)
}

// values are the numbers of a family's series: values of counters and gauges, counts of
// histograms. Series that are zero are left out: one server may tell them, the other not.
func values(family *dto.MetricFamily) map[string]float64 {
	out := map[string]float64{}
	for _, metric := range family.GetMetric() {
		var labels []string
		for _, label := range metric.Label {
			labels = append(labels, fmt.Sprintf("%s=%q", label.GetName(), label.GetValue()))
		}
		slices.Sort(labels)
		value := metric.GetCounter().GetValue() + metric.GetGauge().GetValue() + float64(metric.GetHistogram().GetSampleCount())
		if value != 0 {
			out[strings.Join(labels, ",")] = value
		}
	}
	return out
}

// change is what happened to a family's series between two scrapes.
func change(before, after *dto.MetricFamily) map[string]float64 {
	out := values(after)
	for series, was := range values(before) {
		if out[series] -= was; out[series] == 0 {
			delete(out, series)
		}
	}
	return out
}

func text(series map[string]float64) string {
	var lines []string
	for labels, value := range series {
		lines = append(lines, fmt.Sprintf("{%s} %v", labels, value))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// sameMagnitude says whether two sizes could describe the same store.
func sameMagnitude(one, other float64) bool {
	return one > 0 && other > 0 && math.Abs(math.Log10(one/other)) < 1.5
}
