// What a dashboard's JSON may be, by Grafana's published types. In JSON the members of an enum are plain values.
import type { Dashboard, DataQuery, FieldConfig, FieldConfigSource, Panel, RowPanel } from "@grafana/schema";
import type * as gauge from "@grafana/schema/dist/esm/raw/composable/gauge/panelcfg/x/GaugePanelCfg_types.gen";
import type * as heatmap from "@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen";
import type * as stat from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type * as timeseries from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

type Value<T extends number> = `${T}` extends `${infer N extends number}` ? N : number;
type Json<T> = T extends string ? `${T}`
  : T extends number ? Value<T>
  : T extends readonly (infer U)[] ? Json<U>[]
  : T extends object ? { [K in keyof T]: Json<T[K]> }
  : T;

// the schema has no type for a query of Prometheus beyond what every query has
interface Query extends DataQuery {
  expr: string;
  legendFormat: string;
  instant: boolean;
  range: boolean;
  editorMode: "code" | "builder";
  format: "time_series" | "heatmap" | "table";
}

// a panel with the options of its kind, and what its fields may have beside the common
interface Kind<Name extends string, Options, Custom>
  extends Omit<Panel, "type" | "options" | "targets" | "fieldConfig"> {
  type: Name;
  options: Options;
  targets: Query[];
  fieldConfig: Omit<FieldConfigSource, "defaults"> & { defaults: Omit<FieldConfig, "custom"> & { custom?: Custom } };
}

export interface Panels {
  row: Json<RowPanel>;
  gauge: Json<Kind<"gauge", gauge.Options, never>>;
  stat: Json<Kind<"stat", stat.Options, never>>;
  timeseries: Json<Kind<"timeseries", timeseries.Options, timeseries.FieldConfig>>;
  heatmap: Json<Kind<"heatmap", heatmap.Options, heatmap.FieldConfig>>;
}

export type Frame = Json<Omit<Dashboard, "panels">>;
